"""An embedded server of the TF Serving API, for laptops and tests. It is not TF Serving."""
