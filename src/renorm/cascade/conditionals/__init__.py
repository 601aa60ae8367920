"""Laws of details given coarse fields: closed forms, heat baths, local laws, coupling flows."""
