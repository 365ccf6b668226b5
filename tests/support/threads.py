"""Two threads that are inside of something at once."""

import threading
from concurrent.futures import ThreadPoolExecutor


def overlapping(first, second, seen, meanwhile=lambda: None):
    """What ``seen`` gives in ``second``, which another thread enters inside ``first`` and leaves after it.

    ``meanwhile`` is called in the thread of ``first`` while both are inside.
    """
    inside, gone = threading.Event(), threading.Event()

    def other():
        with second:
            inside.set()
            assert gone.wait(30)
            return seen()

    with ThreadPoolExecutor(1) as pool:
        with first:
            running = pool.submit(other)
            assert inside.wait(30)
            meanwhile()
        gone.set()
        return running.result()
