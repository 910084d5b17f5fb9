"""Gradients by differences, for the stages of methods with a GAN."""


def numeric_gradient(stage, batch, objective, variable, index, step=1e-2):
    """A central difference of a function of the terms, in one entry of one variable."""
    start = variable.numpy()
    values = []
    for sign in (1, -1):
        moved = start.copy()
        moved[index] += sign * step
        variable.assign(moved)
        values.append(float(objective(stage.forward(batch))))
    variable.assign(start)
    return (values[0] - values[1]) / (2 * step)
