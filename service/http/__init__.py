"""HTTP plumbing that routes and the application share: bodies, problems, preferences, the contract document."""
