"""HTTP/1.1 over connections, proxies and TLS, one exchange at a time. It knows neither commands nor the platform."""
