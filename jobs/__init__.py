"""What is run tonight: the command line and one file a job."""
