"""recsim_llm: a recommender-system simulator."""
