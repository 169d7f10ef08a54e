"""The page at `/dashboard` and the numbers it draws: `GET /v1/stats`, the last minutes out of this process's memory."""
