"""The `ces` command: a demonstration of the whole system, and the small tools that one wants at a hub.

    main.py        the command line; decides what runs
    running.py     runs one command on the reactor, until it is done or asked to stop
    commands.py    watch, send, simulate
    demo.py        demo: hubs, a repeater and a building
    follower.py    what demo's processes run: twistd that ends when its parent does
    process.py     the parent's end of such a process
    simulation.py  a building on the air: a messenger per room
    building.py    what the building's devices say, and when (pure)
    ledger.py      which of the events that were sent have arrived (pure)
    line.py        an event as a line for people (pure)
    screen.py      the terminal

Nothing else in the package imports this floor, and nothing here imports the reactor before a command runs.
"""
