"""Other people's interfaces: their networks in our models, and the other way round."""
