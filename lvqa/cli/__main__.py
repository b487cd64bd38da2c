from lvqa.cli.main import main

main()
