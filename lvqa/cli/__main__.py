from lvqa.cli import main

main()
