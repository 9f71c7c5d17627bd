"""python -m edgeport.cli"""

from edgeport.cli import main

main()
