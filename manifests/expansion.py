"""Text that a container gets as it is written, although the kubelet expands variables in it."""


def literal(text: str) -> str:
    """Return a variable's value, or a part of a command, so that the process gets what is written.

    The kubelet puts a variable's value in the place of ``$(NAME)``, and ``$`` in that of ``$$``; any other ``$`` stays
    (https://github.com/kubernetes/kubernetes, third_party/forked/golang/expansion).
    """
    return text.replace("$", "$$") if "$$" in text or "$(" in text else text
