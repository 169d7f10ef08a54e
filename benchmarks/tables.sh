#!/bin/sh
# The tables of docs/results.md on the bundled backbone: benchmarks/tables.sh DATA OUT [LANE]
# Two lanes, one thread each, side by side; every step goes on where it was when the script is started again.
set -u
DATA=$1 OUT=$2 LANE=${3:-both}
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
mkdir -p "$OUT"

run() { # name, then the options of `selftpt eval`
    name=$1; shift
    echo "$(date -u +%H:%M:%S) $name"
    python -m service eval --out "$OUT/$name" "$@" >"$OUT/$name.md" 2>>"$OUT/$name.log" || echo "$name failed: $OUT/$name.log"
}

few() { # folder, sets, methods, shots, seeds, test images per class
    run "$1" --data "$DATA" --sets "$2" --protocol few-shot --methods "$3" --shots "$4" --seeds "$5" --max-images "$6" --reuse-features
}

SMALL=cifar10,intel_scenes,clothing10
QUICK=coop,dapt,quantized
SLOW=maple:steps=100,tgp-t:steps=200
STORED=coop@8,coop@4,coop@3,coop@2,coop@1,dapt@8,dapt@4,dapt@2,dapt@1,maple@8:steps=100,maple@4:steps=100,maple@2:steps=100,maple@1:steps=100
BITS=quantized:bits=1,quantized:bits=2,quantized:bits=4,quantized:bits=8

lane_a() { # everything that needs no support images, then the large set
    run zero_shot --data "$DATA/evaluation" --methods zero-shot,self-tpt --seeds 1,2,3
    run tpt --data "$DATA/evaluation" --sets intel_scenes,clothing10,pacs_photo,cifar10 --methods self-tpt,tpt,tpt:mode=vote --seeds 1, --max-images 10 --reuse-features
    few few_shot_caltech101 caltech101 "$QUICK" 1,2,4,8,16 1,2,3 5
    few few_shot_caltech101 caltech101 "$SLOW" 1,4,16 1, 5
}

lane_b() { # the small sets, storage, transfer
    few few_shot "$SMALL" "$QUICK" 1,2,4,8,16 1,2,3 50
    few few_shot "$SMALL" "$SLOW" 1,4,16 1,2,3 50
    few storage "$SMALL" "$STORED,$BITS" 16 1,2,3 50
    run base_to_new --data "$DATA" --sets "$SMALL" --protocol base-to-new --methods self-tpt,coop,coop:class_specific=false,coop-x4:class_specific=false,dapt,maple:steps=100,tgp-t:steps=200 --seeds 1,2,3 --max-images 50 --reuse-features
}

costs() { # alone on the machine: every method in a process of its own, on 100 classes with one image each
    run costs --data "$DATA" --sets caltech101 --protocol few-shot --methods "self-tpt,coop,dapt,quantized,$SLOW,tpt,tpt:mode=vote" --shots 1 --seeds 1, --max-images 1 --reuse-features --cost
}

controls() { # prompts trained on source images: Self-TPT's ablation and the four CE-trained prompts
    run zero_shot --data "$DATA/evaluation" --methods zero-shot,self-tpt --seeds 1,2,3 --source "$DATA/source"
}

case $LANE in
a) lane_a ;;
b) lane_b ;;
costs) costs ;;
controls) controls ;;
both) lane_a & lane_b; wait; costs ;;
*) echo "lane: a, b, costs, controls or both" >&2; exit 2 ;;
esac
