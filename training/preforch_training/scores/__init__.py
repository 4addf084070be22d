"""Stage `scores`: rewards of the overall pairs, out-of-fold, on one scale (METHOD 2)."""
