"""vector_reward"""
