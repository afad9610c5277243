# Sums up coverage.py's table by package: awk -v only="db schema" -f tests/coverage.awk dist/coverage.txt (only: "" = all)
/^src\/harmonylite\// {
    split($1, path, "/")
    package = path[3] ~ /\.py$/ ? "(top)" : path[3]
    if (only != "" && index(" " only " ", " " package " ") == 0) next
    total += $2
    none += $3
    lines[package] += $2
    missed[package] += $3
}
END {
    for (package in lines) printf "%-14s %6d lines, %5.1f %% reached\n", package, lines[package], 100 * (1 - missed[package] / lines[package]) | "sort"
    close("sort")
    printf "%-14s %6d lines, %5.1f %% reached\n", "all", total, 100 * (1 - none / total)
}
