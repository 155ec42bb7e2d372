"""Objects by key on a local folder or S3. Nothing here knows what an object holds."""
