"""Where parts are put together: recipes (TOML) into models and run folders."""
