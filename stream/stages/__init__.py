"""The two stages over structs: who scores, labels and learns.

An application travels member → job → member, one turn of coordinate descent: the member stage
attaches the member's score, the job stage adds the global and the job score, labels and learns,
and the label goes back to the member stage, which learns it too. The replay calls these stages
record by record; :mod:`stream.partitions` puts decoding, routing and positions around them for the
worker.
"""
