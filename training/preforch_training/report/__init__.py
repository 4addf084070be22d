"""Stage `report`: every part of a run measured beside what is simpler (METHOD 9)."""
