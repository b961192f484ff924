"""The API described for programs: `/openapi.json`, OpenAPI 3.1."""
