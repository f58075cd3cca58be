"""Can a language model be taught to answer with the randomness it is asked for?

Data flows one way: params -> specs -> laws -> tries -> adapters -> measurements -> chapters.
"""
