"""Knowledge distillation from stored teacher logits."""
