module package-platform/tools/pause

go 1.26.0
