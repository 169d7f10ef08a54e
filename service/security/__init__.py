"""Who may do what: API keys, scopes, tenants, rates; and what a request may make this process touch."""
