"""What the experiment scripts share: training, metrics, analyses, command-line options."""
