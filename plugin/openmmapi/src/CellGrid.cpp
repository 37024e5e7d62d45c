/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#include "internal/CellGrid.h"
#include <algorithm>
#include <cmath>

using namespace DiffSim;
using namespace OpenMM;
using namespace std;

namespace {

// Cells are a whole fraction of the range wide. Finer ones mean fewer candidates that are not neighbors, but more and shorter
// runs; they pay where they still hold this many points.
const double POINTS_PER_CELL = 8;
const int FINEST = 4;

struct Bounds {
    Vec3 low, high;
};

Bounds findBounds(const Vec3* points, const vector<int>& selected) {
    Bounds bounds;
    if (selected.size() > 0)
        bounds.low = bounds.high = points[selected[0]];
    for (int i : selected)
        for (int axis = 0; axis < 3; axis++) {
            bounds.low[axis] = min(bounds.low[axis], points[i][axis]);
            bounds.high[axis] = max(bounds.high[axis], points[i][axis]);
        }
    return bounds;
}

} // namespace

void CellGrid::build(const Vec3* points, const vector<int>& selected, const Vec3* boxVectors, double range) {
    int count = selected.size();
    periodic = (boxVectors != nullptr);
    Vec3 origin;
    bool rectangular = true;
    double widths[3];
    if (periodic) {
        for (int axis = 0; axis < 3; axis++)
            box[axis] = boxVectors[axis];
        rectangular = (box[1][0] == 0 && box[2][0] == 0 && box[2][1] == 0);
        double volume = box[0][0]*box[1][1]*box[2][2];
        for (int axis = 0; axis < 3; axis++) {
            Vec3 normal = box[(axis+1)%3].cross(box[(axis+2)%3]);
            widths[axis] = volume/sqrt(normal.dot(normal));
        }
    }
    else {
        Bounds bounds = findBounds(points, selected);
        origin = bounds.low;
        for (int axis = 0; axis < 3; axis++) {
            widths[axis] = max(bounds.high[axis]-bounds.low[axis], 1e-6);
            box[axis] = Vec3();
            box[axis][axis] = widths[axis];
        }
    }

    double pointsInRange = count*(range*range*range)/(widths[0]*widths[1]*widths[2]);
    int cellsPerRange = 1;
    while (cellsPerRange < FINEST && pointsInRange >= POINTS_PER_CELL*pow(cellsPerRange+1, 3))
        cellsPerRange++;

    // Not more cells than points along the whole, or an almost empty box would cost memory.

    double most = max(1.0, ceil(cbrt((double) count)));
    for (int axis = 0; axis < 3; axis++)
        dims[axis] = (int) max(1.0, min(most, floor(cellsPerRange*widths[axis]/range)));
    findColumns(widths, rectangular, range);
    findImages();

    // Sort by counting.

    vector<int> cells(count);
    vector<Vec3> wrapped(count);
    starts.assign(getNumCells()+1, 0);
    for (int i = 0; i < count; i++) {
        Vec3 r = points[selected[i]]-origin;
        if (periodic) {
            r -= box[2]*floor(r[2]/box[2][2]);
            r -= box[1]*floor(r[1]/box[1][1]);
            r -= box[0]*floor(r[0]/box[0][0]);
        }

        // Fractional coordinates; in a triclinic box they may be negative, and the cell with them.

        double f[3];
        f[2] = r[2]/box[2][2];
        f[1] = (r[1]-f[2]*box[2][1])/box[1][1];
        f[0] = (r[0]-f[2]*box[2][0]-f[1]*box[1][0])/box[0][0];
        int index = 0;
        for (int axis = 0; axis < 3; axis++) {
            if (periodic) {
                double whole = floor(f[axis]);
                f[axis] -= whole;
                r -= box[axis]*whole;
            }
            index = index*dims[axis]+max(0, min(dims[axis]-1, (int) (f[axis]*dims[axis])));
        }
        wrapped[i] = r+origin;
        cells[i] = index;
        starts[index+1]++;
    }
    for (int i = 0; i < getNumCells(); i++)
        starts[i+1] += starts[i];
    vector<int> next(starts.begin(), starts.end()-1);
    order.resize(count);
    sorted.resize(count);
    for (int i = 0; i < count; i++) {
        int position = next[cells[i]]++;
        order[position] = selected[i];
        sorted[position] = wrapped[i];
    }
}

void CellGrid::findColumns(const double* widths, bool rectangular, double range) {
    double cellWidths[3];
    for (int axis = 0; axis < 3; axis++) {
        cellWidths[axis] = widths[axis]/dims[axis];
        reach[axis] = (int) ceil(range/cellWidths[axis]*(1+1e-9));
        if (!periodic)
            reach[axis] = min(reach[axis], dims[axis]-1);
    }
    auto gap = [&] (int cells, int axis) {
        return max(0, abs(cells)-1)*cellWidths[axis];
    };
    double limit = range*range*(1+1e-9);
    columns.clear();
    for (int dx = -reach[0]; dx <= reach[0]; dx++)
        for (int dy = -reach[1]; dy <= reach[1]; dy++) {
            int dz = reach[2];
            if (rectangular) {
                double x = gap(dx, 0), y = gap(dy, 1);
                while (dz >= 0 && x*x+y*y+gap(dz, 2)*gap(dz, 2) > limit)
                    dz--;
            }
            if (dz >= 0)
                columns.push_back({dx, dy, dz});
        }
}

void CellGrid::findImages() {
    for (int axis = 0; axis < 3; axis++) {
        images[axis].clear();
        for (int i = -reach[axis]; i < dims[axis]+reach[axis]; i++) {
            int image = (i >= 0 ? i/dims[axis] : -((dims[axis]-1-i)/dims[axis]));
            Vec3 shift = (periodic ? box[axis]*image : Vec3());
            images[axis].push_back({!periodic && image != 0 ? -1 : i-image*dims[axis],
                    {(float) shift[0], (float) shift[1], (float) shift[2]}});
        }
    }
}

void CellGrid::getNeighbors(int cell, vector<Run>& runs) const {
    runs.clear();
    int x = cell/(dims[1]*dims[2])+reach[0], y = (cell/dims[2])%dims[1]+reach[1], z = cell%dims[2]+reach[2];
    for (const Column& column : columns) {
        const Image& ix = images[0][x+column.dx];
        const Image& iy = images[1][y+column.dy];
        int first = (ix.cell*dims[1]+iy.cell)*dims[2];
        if (ix.cell < 0 || iy.cell < 0 || first+dims[2] <= cell)
            continue;

        // Along z, the cells of one image after the other.

        for (int low = z-column.dz, high = z+column.dz, last; low <= high; low += last+1) {
            const Image& iz = images[2][low];
            last = 0;
            if (iz.cell < 0)
                continue;
            last = min(dims[2]-1-iz.cell, high-low);
            int begin = starts[first+iz.cell], end = starts[first+iz.cell+last+1];
            if (first+iz.cell+last >= cell && end > begin)
                runs.push_back({begin, end, {ix.shift[0]+iy.shift[0]+iz.shift[0], ix.shift[1]+iy.shift[1]+iz.shift[1],
                        ix.shift[2]+iy.shift[2]+iz.shift[2]}});
        }
    }
}
