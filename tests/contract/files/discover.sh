#!/bin/sh
cat discovered
