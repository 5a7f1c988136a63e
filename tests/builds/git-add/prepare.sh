#!/bin/sh
# The repositories, whose commits have the same names every time.
set -e
export GIT_AUTHOR_DATE=@1700000000+0000 GIT_COMMITTER_DATE=@1700000000+0000
export GIT_AUTHOR_NAME=t GIT_AUTHOR_EMAIL=t@example.com GIT_COMMITTER_NAME=t GIT_COMMITTER_EMAIL=t@example.com
commit() { git add . && git commit -q -m "$1"; }

mkdir lib
cd lib
git init -q -b main
echo library > lib.txt
commit lib
git clone -q --bare . ../www/lib.git

cp -r ../tree ../parts
cd ../parts
git init -q -b main
git clone -q ../lib vendor
printf '[submodule "vendor"]\n\tpath = vendor\n\turl = ../lib.git\n' > .gitmodules
commit parts 2> /dev/null
git clone -q --bare . ../www/parts.git

cd ../tree
git init -q -b main
chmod +x README
commit one
git tag -a -m v1 v1
git branch other
echo two > sub/file
ln -s sub/file link
commit two
git clone -q --bare . ../www/repo.git
