"""The names of the models, for scripts that need no torch to tell programs what to do."""

# Table 4 of the paper.
TABLE_4 = ["densenet169", "densenet201", "inception_v3", "efficientnet_b0", "resnet50", "resnet101", "resnet152",
           "bert_large_qa"]

# Instead of a model, where there is only a simulated GPU: it cannot run PyTorch's kernels.
STAND_IN = "copies"
