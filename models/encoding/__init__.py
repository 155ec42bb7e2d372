"""Raw numbers and codes to scaled inputs, fitted on a stream of rows. Nothing here knows a
detector."""
