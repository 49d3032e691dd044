"""Neural networks under differential privacy.  Only `gradients` imports torch and Opacus; a quote, a replay and a prediction
need neither.
"""
