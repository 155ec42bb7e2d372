"""Makes raw numbers and codes into scaled inputs, fitted on a stream of rows. Knows no detector."""
