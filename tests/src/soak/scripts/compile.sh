# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Compiles files of SQLite, two at a time: the sum of each object. `lemon` stands for SQLite's parser
# generator, a program that is linked and run, and for the parser that it makes.
mkdir objects
for file in "$@"; do
    if [ "$file" = lemon ]; then
        gcc -O2 -o objects/lemon "$SQLITE_SOURCE/tool/lemon.c"
        echo "exit status $?"
        cp "$SQLITE_SOURCE/tool/lempar.c" "$SQLITE_SOURCE/src/parse.y" .
        objects/lemon -S parse.y
        echo "exit status $?"
        mv parse.c parse.h parse.sql objects
    fi
done
printf '%s\n' "$@" | grep -vx lemon | xargs -r -P 2 -I FILE \
    gcc -O2 -c -I "$SQLITE_BUILD/tsrc" -o objects/FILE.o "$SQLITE_BUILD/tsrc/FILE.c"
echo "exit status $?"
cd objects && sha256sum -- *
