/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#ifndef OPENMM_DIFFSIM_CELLGRID_H_
#define OPENMM_DIFFSIM_CELLGRID_H_

#include "internal/windowsExportDiffSim.h"
#include "openmm/Vec3.h"
#include <vector>

namespace DiffSim {

/**
 * Points sorted into cells, so that all neighbors of a point are in a few runs of consecutive points. Time and memory are
 * linear in the number of points.
 */
class OPENMM_EXPORT_DIFFSIM CellGrid {
public:
    /** The sorted points begin to end-1, each to be moved by shift (nm) to the image in question. */
    struct Run {
        int begin, end;
        float shift[3];
    };
    /**
     * Sort points.
     *
     * @param points      positions in nm, of any image
     * @param selected    the indices of the points to sort
     * @param box         three vectors in reduced form, in nm, or null without periodic boundary conditions
     * @param range       the distance in nm within which points are neighbors
     */
    void build(const OpenMM::Vec3* points, const std::vector<int>& selected, const OpenMM::Vec3* box, double range);
    /** The index of each sorted point among the points given. */
    const std::vector<int>& getOrder() const {
        return order;
    }
    /** The sorted points, in nm, those of a periodic box in its unit cell. */
    const std::vector<OpenMM::Vec3>& getSorted() const {
        return sorted;
    }
    /** Numbers of cells along the three axes; cell (x, y, z) has the index (x*dims[1]+y)*dims[2]+z. */
    const int* getDimensions() const {
        return dims;
    }
    int getNumCells() const {
        return dims[0]*dims[1]*dims[2];
    }
    /** The first sorted point of each cell, and the number of points. */
    const std::vector<int>& getStarts() const {
        return starts;
    }
    /** Neighbors of a cell's points are in the cells up to so many away along each axis. */
    const int* getReach() const {
        return reach;
    }
    /**
     * Find runs that hold every image, once, that is within the range of any point of a cell and does not come before the
     * cell in the sorted order. Those of the cell itself are among them, with a shift of zero. Meaningful where the range is
     * at most half the width of the box.
     */
    void getNeighbors(int cell, std::vector<Run>& runs) const;
private:
    struct Column {
        int dx, dy, dz; // of the column (dx, dy) the cells -dz ... dz
    };
    struct Image {
        int cell;       // along one axis, or -1 beyond the ends where there is no box
        float shift[3]; // to the image that it is in
    };
    void findColumns(const double* widths, bool rectangular, double range);
    void findImages();
    bool periodic;
    int dims[3], reach[3];
    std::vector<Image> images[3]; // for the cells -reach ... dims+reach-1 of each axis
    OpenMM::Vec3 box[3];
    std::vector<int> order, starts;
    std::vector<OpenMM::Vec3> sorted;
    std::vector<Column> columns;
};

} // namespace DiffSim

#endif /*OPENMM_DIFFSIM_CELLGRID_H_*/
