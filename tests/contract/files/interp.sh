#!/no/such/interp
