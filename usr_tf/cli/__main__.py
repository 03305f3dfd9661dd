import sys

from usr_tf.cli.program import main

sys.exit(main())
