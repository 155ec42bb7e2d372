"""Parts of networks that several detectors share. No detector is here."""
