"""What browsers are told: to trust nothing in an answer, and which other sites may call."""

from flask import Flask, Response, request

from worker.settings import Settings

# Answers are data, never a page, and hold what only their caller may see.
GUARDS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",  # the address may hold a token
    "Cache-Control": "no-store",
}
ALLOWED = {
    "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Content-Encoding,"
    " Idempotency-Key",
    "Access-Control-Expose-Headers": "Location, Retry-After, Link, X-Next-After,"
    " Idempotent-Replayed",
    "Access-Control-Max-Age": "600",
}


def guards(settings: Settings) -> dict[str, str]:
    """The headers that every answer has, whoever asks."""
    return GUARDS | ({"Vary": "Origin"} if settings.cors_origins else {})


def guard(app: Flask, settings: Settings) -> None:
    """Add the headers to every answer; pages of `DPE_CORS_ORIGINS` may call, of no other site."""
    always = guards(settings)

    @app.after_request
    def add(answer: Response) -> Response:
        answer.headers.extend(always)  # no view sets any of these
        if settings.cors_origins and request.headers.get("Origin") in settings.cors_origins:
            answer.headers.update(ALLOWED)
            answer.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
        return answer
