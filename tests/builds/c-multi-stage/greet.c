#include <stdio.h>
#include <unistd.h>
#include "words.h"

int main(int count, char **words) {
    printf("%s %s, user %d\n", greeting(), count > 1 ? words[1] : "you", (int)getuid());
    return 0;
}
