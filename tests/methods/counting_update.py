"""An update for tests of learning rules: gradients, and how often a rule asked for what."""


class CountingUpdate:
    """An update that changes nothing and counts."""

    def __init__(self, net):
        self.net, self.backwards, self.applied = net, 0, 0

    def zero_grad(self):
        self.net.zero_grad()

    def backward(self, loss):
        self.backwards += 1
        loss.backward()

    def apply(self):
        self.applied += 1

    def minimise(self, loss):
        self.zero_grad()
        self.backward(loss)
        self.apply()
