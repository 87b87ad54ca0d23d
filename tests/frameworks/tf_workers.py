"""TensorFlow's MultiWorkerMirroredStrategy, found by TF_CONFIG alone."""
import json
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import tensorflow as tf

config = json.loads(os.environ["TF_CONFIG"])
size, rank = len(config["cluster"]["worker"]), config["task"]["index"]
strategy = tf.distribute.MultiWorkerMirroredStrategy()
assert strategy.num_replicas_in_sync == size, strategy.num_replicas_in_sync


@tf.function
def step(value):
    mine = strategy.run(lambda: tf.identity(value))
    return strategy.reduce(tf.distribute.ReduceOp.SUM, mine, axis=None)


total = float(step(tf.constant(float(rank + 1))))
assert total == size * (size + 1) / 2, total
print(f"tensorflow {tf.__version__} rank {rank} of {size}: ok", flush=True)
