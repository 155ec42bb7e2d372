"""How well the detectors find anomalies: public sets, their protocols, published figures."""
