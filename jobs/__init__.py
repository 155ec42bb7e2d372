"""What is run tonight: the command line and one file a job."""

import cluster as cluster  # settles Ray's authentication before any job imports Ray
