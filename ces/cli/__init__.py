"""The `ces` command: a demonstration of the whole system, and small tools for use with a hub.

    main.py        parses the command line and chooses the command
    running.py     runs one command on the reactor, until it is done or asked to stop
    commands.py    the commands watch, send and simulate
    demo.py        the command demo: two hubs, a repeater and a simulated building
    follower.py    the program of demo's child processes: twistd that ends when its parent ends
    process.py     starts and stops such a child process
    simulation.py  sends a building's events, with one messenger per room
    building.py    generates the events of a building's devices (pure)
    ledger.py      counts which of the sent events have arrived (pure)
    line.py        formats an event as a line of text (pure)
    screen.py      writes to the terminal

No other floor imports this one. Nothing here imports the reactor before a command runs.
"""
