"""One module per subcommand of `selftpt`. Each is imported only when it runs."""
