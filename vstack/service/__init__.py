"""What every service shares: routes and their OpenAPI, middleware, metrics, logs, and the process runner."""
