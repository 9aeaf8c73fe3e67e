"""Human studies: blinded items drawn from an index, a web application for raters, and the analysis of their answers."""
