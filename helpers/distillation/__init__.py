"""Knowledge distillation from stored teacher logits or online teachers."""
